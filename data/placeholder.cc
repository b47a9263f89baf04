namespace osler {}
