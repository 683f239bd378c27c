"""What is asked, as data: prompts, positions, sites, metrics, interventions, checked."""
