"""Web pairs: threads of a question and scored answers (StackExchange, Reddit) -> pairs."""
