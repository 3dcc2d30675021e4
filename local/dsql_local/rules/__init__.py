"""What DSQL accepts, refuses and answers, as data and pure functions of a statement's text."""
