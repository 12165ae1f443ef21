"""Problems, prompts and verifiers. Nothing here knows of losses or engines."""
