"""What comes from outside and goes there: values checked and shown, files read and written."""
