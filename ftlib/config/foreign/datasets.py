"""The keys of one data set, in Axolotl's `datasets:` and in LLaMA-Factory's `dataset_info.json`. They stand in
`data`, in a member of `data.train`, or in `data.replay`. `OURS`: key -> key there; the others: reason -> keys."""

from __future__ import annotations

OURS: dict[str, str] = {
    "type": "format",
    "formatting": "format",
    "ranking": "format: preference",
    "split": "hub_split",
    "train_on_split": "hub_split",
    "name": "hub_config",
    "subset": "hub_config",
    "data_files": "path (a file or a folder)",
    "file_name": "path",
    "hf_hub_url": "path",
    "cloud_file_name": "path (s3:// or gs://)",
    "folder": "path",
    "file": "path",
    "dataset": "path",
    "probability": "weight",
    "num_samples": "weight (below 1 it is a share of the rows), or data.max_rows",
    "shards": "weight (below 1 it is a share of the rows), or data.max_rows",
    "field": "columns: {text: ...}",
    "text_column": "columns: {text: ...}",
    "field_messages": "columns: {messages: ...}",
    "field_instruction": "columns: {instruction: ...}",
    "field_input": "columns: {input: ...}",
    "field_output": "columns: {output: ...}",
    "field_system": "columns: {system: ...}",
    "field_prompt": "columns: {prompt: ...}",
    "field_chosen": "columns: {chosen: ...}",
    "field_rejected": "columns: {rejected: ...}",
    "field_completion": "columns: {completion: ...}",
    "field_label": "columns: {label: ...}",
    "field_tools": "columns: {tools: ...}",
    "chat_template": "data.template",
}

HARMLESS: dict[str, str] = {
    "the ending of a file says what it is": "ds_type script_url ms_hub_url",
    "prepared data is kept by its content": "preprocess_shards shards_idx",
    "a turn's role and content are found under the names that the formats have": (
        "conversation message_field_role message_field_content message_property_mappings field_human field_model roles "
        "tags role_tag content_tag user_tag assistant_tag system_tag observation_tag function_tag"
    ),
    "data sets run no code": "trust_remote_code",
}

ABSENT: dict[str, str] = {}

REFUSED: dict[str, str] = {
    "the latest revision of a data set on the Hub is taken; a file here stays as it is": "revision",
    "every answer is trained on to its end; a turn's weight of 0 leaves it out": (
        "roles_to_train train_on_eos train_on_eot message_field_training message_field_training_detail"
    ),
    "texts are put together by data.template": (
        "prompt_format completion_format chosen_format rejected_format no_input_format system_format input_format "
        "system_prompt chat_template_jinja input_transform drop_system_message"
    ),
    "thoughts are a part of an answer's text": "split_thinking field_thinking template_thinking_key",
    "rows are read from their beginning (data.max_rows)": "skip",
    "a teacher's probabilities are computed when they are needed (method.type: distill)": "logprobs_field",
    "ftlib trains on text": "images videos audios",
}
