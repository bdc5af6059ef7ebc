"""What answers.yaml measures."""


def results(doc: dict, results: list[tuple[float, bool]]) -> dict:
    """Of the one request: the log likelihood of the wanted answer, and whether greedy decoding gives just that."""
    likelihood, greedy = results[0]
    return {"bits_per_byte": (likelihood, len(doc["wanted"].encode())), "word_for_word": float(greedy)}
