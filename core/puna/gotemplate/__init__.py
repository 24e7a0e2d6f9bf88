"""The language of Go's text/template: `parser.parse` reads a template, `Template.execute` runs it, `facts` looks at it."""
