//! Settings as values with defaults and units; nothing here reads a file.
