//! The #[hw] attribute
