'use strict';
// Stands in, inside the server's bundle, for modules that this container never uses.
const never = () => { throw new Error('not part of this image'); };
module.exports = { hash: never, verify: never, ProxyAgent: never };
