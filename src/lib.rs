//! Chainring.
