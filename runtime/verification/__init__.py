"""Placeholder."""


def verifiers(planned, root):
    def score(record, text):
        return float(text.strip() == str(record.get("answer", "")))

    return dict.fromkeys(planned, score)
