"""The steps. One that is shipped is never changed; replicas of the version before must live with what it does."""
