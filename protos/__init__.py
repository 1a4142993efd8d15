"""The contract between the DICOM side and the tensor side: wire messages, tensor codec, model manifest."""
