"""The tensor side: serves frozen models over the Open Inference Protocol. Knows no patient."""
