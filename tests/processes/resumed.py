"""Fit with BackupAndRestore, and die by SIGKILL at a given batch of a given epoch.

Arguments: the folder of the backup, the file of the final model, and where to die: epoch and batch,
or "never".
"""

import os
import signal
import sys

import keras
from workflows import EPOCHS, data, graph, traced


class Death(keras.callbacks.Callback):
    def __init__(self, epoch, batch):
        super().__init__()
        self.place = int(epoch), int(batch)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.place:
            os.kill(os.getpid(), signal.SIGKILL)


backup, end, *place = sys.argv[1:]
keras.utils.set_random_seed(7)
model = traced(graph(), keras.optimizers.Adam(0.01))
callbacks = [keras.callbacks.BackupAndRestore(backup)]
if place != ["never"]:
    callbacks.append(Death(*place))
model.fit(*data(), batch_size=8, epochs=EPOCHS, shuffle=False, callbacks=callbacks, verbose=0)
model.save(end)
