//! Hands the locations of zlib and LZ4 (built by their own crates, needed by Verilator's FST writer) and
//! the target triple to the library, which compiles C++ at run time and in other crates' build scripts.

fn main() {
    for (variable, source) in [
        ("HEMATITE_Z_ROOT", "DEP_Z_ROOT"),
        ("HEMATITE_Z_INCLUDE", "DEP_Z_INCLUDE"),
        ("HEMATITE_LZ4_ROOT", "DEP_LZ4_ROOT"),
        ("HEMATITE_LZ4_INCLUDE", "DEP_LZ4_INCLUDE"),
        ("HEMATITE_TARGET", "TARGET"),
    ] {
        let value = std::env::var(source).unwrap_or_default();
        println!("cargo::rustc-env={variable}={value}");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
