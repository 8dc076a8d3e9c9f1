"""Zero-shot restoration: one photograph is restored from itself alone, with a blur kernel estimated from it."""
