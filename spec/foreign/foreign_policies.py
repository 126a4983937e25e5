"""Attributes of reinforcement learning from other programs."""

from .foreign_attributes import Answer

POLICIES = (
    Answer("group_size rollout_n n_samples", "grpo", "did you mean `group`?"),
    Answer(
        "max_completion_length max_new_tokens max_response_length response_length",
        "grpo",
        "did you mean `max_tokens`?",
    ),
    Answer(
        "epsilon epsilon_low epsilon_high clip_range cliprange clip_eps eps_clip",
        "grpo",
        "did you mean `clip_ratio`? It is one share, or two, below and above",
    ),
    Answer("kl_coef kl_loss_coef beta init_kl_coef", "grpo", "did you mean `kl`?"),
    Answer("reward_funcs reward_model reward_fn rewards", "grpo", "did you mean `reward`?"),
    Answer("loss_type adv_estimator", "grpo", "did you mean `objective`?"),
    Answer("scale_rewards", "grpo", "did you mean `advantage`?"),
    Answer(
        "num_iterations ppo_epochs mu steps_per_generation",
        "grpo",
        "the model writes new answers after every `refresh` steps, each of which learns from its "
        "own prompts; no answer is learned from twice",
    ),
)
"""For grpo stages."""
