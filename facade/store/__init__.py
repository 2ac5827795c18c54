"""The facade's own database: accounts and logins."""
