'use strict';
// Preloaded into every process of check.cjs, whose helpers are killed in the end: writes the compile cache by then. Once,
// because Node writes the entry of a file only the first time, and what has run by that time is what the entry holds.
setTimeout(() => require('node:module').flushCompileCache(), 2500).unref();
