//! Made-up clock, link and disk for tests, simulations and fuzz targets.

pub mod disk;
pub mod queue_model;
