#![no_main]
hematite_netstack_fuzz::fuzz!(hematite_netstack_fuzz::targets::udp);
