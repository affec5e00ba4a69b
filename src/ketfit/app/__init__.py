"""The web demo: trace a prediction, render its steps, build the page and serve it."""
