"""Who is asking: accounts, passwords, cookies, logins, and which origins may change anything."""
