"""The client side: local training, the client's half of policies, and the Flower client app."""
