"""The language of Go's text/template: `parser.parse` reads, `Template.execute` runs, `facts` looks."""
