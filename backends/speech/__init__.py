"""Speech to text: uploads, audio, Whisper on two engines, and transcripts."""
