"""The real engine in virtual time against modelled devices. Pure: no IO, no clock, randomness is passed in."""
