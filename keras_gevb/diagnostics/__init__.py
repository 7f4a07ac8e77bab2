"""How a learning rule relates to the gradient, layer by layer, before and during training."""

from keras_gevb.diagnostics.certificate import Certificate, certify
from keras_gevb.diagnostics.locality import Audit, audit
from keras_gevb.diagnostics.measures import alignment_angles, dead_units, sign_agreement, zero_weights
from keras_gevb.diagnostics.monitor import AlignmentMonitor

__all__ = [
    "AlignmentMonitor",
    "Audit",
    "Certificate",
    "alignment_angles",
    "audit",
    "certify",
    "dead_units",
    "sign_agreement",
    "zero_weights",
]
