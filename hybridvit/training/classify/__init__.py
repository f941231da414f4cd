"""Classification: images, model, losses, teachers, evaluation."""
