"""TensorFlow blocks that make up an exported algorithm: inside the graph, training and serving cannot differ."""
