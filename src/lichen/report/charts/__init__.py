"""Charts as inline SVG: no script at reading time, colours left to the page's style sheet."""
