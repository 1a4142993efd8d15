"""The DICOM side: receives studies, asks the inference service, returns evidence. Knows no tensor framework."""
