//! The edge node and the distributor.
