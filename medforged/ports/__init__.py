"""What the services need from the world, one small protocol per noun; implemented by fakes and adapters.

Every method is a coroutine that never blocks the event loop and either succeeds or raises an error from
`medforged.domain.errors`; no library's own exception passes a port.
"""
