"""The filesystem destination: ``layout`` and ``documents`` say what is called how, ``folder`` reads and writes."""
