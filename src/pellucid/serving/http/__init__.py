"""The HTTP application: routes, what every request passes, and the page."""
