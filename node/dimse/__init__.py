"""PDU, DIMSE and C-STORE on the wire: used by intake and delivery, which never import each other."""
