"""PyTorch: the vector network as a module, autograd, `torch.optim.Adam`; eager, or by `torch.compile`."""

import torch


class Network(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        for i, ((kernel, gates), units) in enumerate(zip(weights, (1024, 512, 1))):
            setattr(self, f"w{i}", torch.nn.Parameter(torch.tensor(kernel)))
            setattr(self, f"b{i}", torch.nn.Parameter(torch.zeros(10, units)))
            if gates is not None:
                self.register_buffer(f"t{i}", torch.tensor(gates))

    def forward(self, x):
        x = x.float() / 127.5 - 1
        h = (x @ self.w0.reshape(784, -1)).reshape(-1, 10, 1024) + self.b0
        a = h * ((self.t0 * h).sum(1, keepdim=True) >= 0)
        h = a @ self.w1 + self.b1
        a = h * ((self.t1 * h).sum(1, keepdim=True) >= 0)
        return (a @ self.w2 + self.b2)[..., 0]


def build(weights, rate, is_compiled):
    network = Network(weights)
    forward = torch.compile(network) if is_compiled else network
    optimizer = torch.optim.Adam(network.parameters(), rate)

    def train(x, y, batch):
        total = 0.0
        for i in range(0, len(x), batch):
            logits = forward(torch.from_numpy(x[i : i + batch]))
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y[i : i + batch]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                network.w1.clamp_(0)
                network.w2.clamp_(0)
            total += loss.detach()
        return float(total) * batch / len(x)

    return train
