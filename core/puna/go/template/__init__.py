"""Go's text/template: `parser.parse` builds a tree, `Template.execute` evaluates it, `facts` inspects it."""
