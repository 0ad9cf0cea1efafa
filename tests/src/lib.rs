//! Nothing here: the tests are in `tests/it`, one binary.
