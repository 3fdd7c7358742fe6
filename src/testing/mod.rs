//! Made-up disk, models and values for tests, simulations and fuzz targets.

pub mod disk;
pub mod manifest;
pub mod queue_model;
