"""A trained model in the browser: `session` computes, `page` shows it with gradio and connects both."""
