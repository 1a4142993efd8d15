"""Values only: what instances, geometry, volumes, findings and evidence are. No I/O, no DICOM library."""
