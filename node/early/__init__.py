"""Slices on their way to the service while their study still arrives."""
