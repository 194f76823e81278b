//! Reports the state of the installation, and diagnoses why cores are not captured or shipped.

pub mod doctor;
pub mod status;
