//! A sans-I/O IP stack on Linux's packet path
