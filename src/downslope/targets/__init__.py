"""What a program becomes: the text of another language, or values. One table of operations each."""
