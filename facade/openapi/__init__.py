"""The OpenAPI document of the API, made of the route table and its types, and the page that shows it to people."""
