"""Chat templates for tok_goldens.py: in the shapes of known models' (their markers, their
control flow and what of the language they ask for; the wording is our own), and small ones,
each of which asks for one thing of the language.

MODELS: name -> template.  FEATURES: list of templates rendered with `messages` empty and the
names of DATA.  REFUSED: templates that must fail, with what the error must say.
"""

CHATML = r"""{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

SMOLLM2 = r"""{% for m in messages -%}
  {%- if loop.first and m.role != 'system' -%}
    {{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}
  {%- endif -%}
  {{ '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>\n' }}
{%- endfor -%}
{{ '<|im_start|>assistant\n' if add_generation_prompt }}"""

SMOLLM3 = r"""{%- set default = "Answer in one breath." -%}
{%- set think = enable_thinking if enable_thinking is defined else true -%}
{%- set system = messages[0].content if messages and messages[0].role == "system" else "" -%}
{%- if "/no_think" in system -%}
  {%- set think = false -%}
  {%- set system = system.replace("/no_think", "").rstrip() -%}
{%- elif "/think" in system -%}
  {%- set think = true -%}
  {%- set system = system.replace("/think", "").rstrip() -%}
{%- endif -%}
{{- "<|im_start|>system\n" -}}
{%- if "/raw" in system -%}
  {{- system.replace("/raw", "").strip() ~ "<|im_end|>\n" -}}
{%- else -%}
  {{- "## About\n\nMode: " ~ ("/think" if think else "/no_think") ~ "\n\n" -}}
  {{- (system or default)|trim -}}
  {%- if tools -%}
    {%- set ns = namespace(lines="", n=0) -%}
    {%- for tool in tools[:] -%}
      {%- set ns.lines = ns.lines ~ (tool|string) ~ "\n" -%}
      {%- set ns.n = ns.n + 1 -%}
    {%- endfor -%}
    {{- "\n### Tools (" ~ ns.n ~ ")\n<tools>\n" + ns.lines + "</tools>" -}}
  {%- endif -%}
  {{- "<|im_end|>\n" -}}
{%- endif -%}
{%- for m in messages -%}
  {%- set content = m.content if m.content is string else "" -%}
  {%- if m.role == "user" -%}
    {{ "<|im_start|>user\n" + content + "<|im_end|>\n" }}
  {%- elif m.role == "assistant" -%}
    {%- generation -%}
      {%- if think -%}
        {{ "<|im_start|>assistant\n" + content.lstrip("\n") + "<|im_end|>\n" }}
      {%- else -%}
        {%- set content = content.split("</think>")[-1] -%}
        {{ "<|im_start|>assistant\n<think>\n\n</think>\n" + content.lstrip("\n") + "<|im_end|>\n" }}
      {%- endif -%}
    {%- endgeneration -%}
  {%- elif m.role == "tool" -%}
    {{ "<|im_start|>user\n" + content + "<|im_end|>\n" }}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{ "<|im_start|>assistant\n" + ("" if think else "<think>\n\n</think>\n") }}
{%- endif -%}"""

QWEN2 = r"""{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe of use.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

QWEN25 = r"""{%- set head = messages[0]['content'] if messages[0]['role'] == 'system' else 'Be of use.' %}
{%- if tools %}
    {{- '<|im_start|>system\n' + head }}
    {{- "\n\n# Tools\n\nCall these, if they help:\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools>\n\nA call looks so:\n<tool_call>\n{\"name\": ..., \"arguments\": ...}\n</tool_call><|im_end|>\n" }}
{%- else %}
    {{- '<|im_start|>system\n' + head + '<|im_end|>\n' }}
{%- endif %}
{%- for m in messages %}
    {%- if (m.role == "user") or (m.role == "system" and not loop.first) or (m.role == "assistant" and not m.tool_calls) %}
        {{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}
    {%- elif m.role == "assistant" %}
        {{- '<|im_start|>' + m.role }}
        {%- if m.content %}
            {{- '\n' + m.content }}
        {%- endif %}
        {%- for call in m.tool_calls %}
            {%- if call.function is defined %}
                {%- set call = call.function %}
            {%- endif %}
            {{- '\n<tool_call>\n{"name": "' ~ call.name ~ '", "arguments": ' }}
            {{- call.arguments | tojson }}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif m.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- m.content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""

QWEN3 = r"""{%- if messages[0].role == 'system' or tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content }}{%- endif %}
    {%- for tool in tools or [] %}{{- "\n" + tool|tojson }}{%- endfor %}
    {{- '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(looking=true, last_query=messages|length - 1) %}
{%- for m in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.looking and m.role == "user" and m.content is string and not(m.content.startswith('<tool_response>') and m.content.endswith('</tool_response>')) %}
        {%- set ns.looking = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for m in messages %}
    {%- set content = m.content if m.content is string else '' %}
    {%- if m.role == "user" or (m.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + m.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif m.role == "assistant" %}
        {%- set thought = '' %}
        {%- if m.reasoning_content is string %}
            {%- set thought = m.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {{- '<|im_start|>' + m.role + '\n' }}
        {%- if loop.index0 > ns.last_query and (loop.last or (not loop.last and thought)) %}
            {{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- content }}
        {%- endif %}
        {%- for call in m.tool_calls or [] %}
            {%- if (loop.first and content) or (not loop.first) %}{{- '\n' }}{%- endif %}
            {%- set call = call.function if call.function else call %}
            {{- '<tool_call>\n{"name": "' + call.name + '", "arguments": ' }}
            {{- call.arguments if call.arguments is string else call.arguments|tojson }}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif m.role == "tool" %}
        {%- if loop.previtem is not defined or loop.previtem.role != "tool" %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\n<tool_response>\n' + content + '\n</tool_response>' }}
        {%- if loop.last or (loop.nextitem.role != "tool") %}{{- '<|im_end|>\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}
{%- endif %}"""

YI = r"""{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% if messages and messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% endif %}{% if system is defined %}{{ system }}{% endif %}{% for m in messages %}{% set content = m['content'] %}{% if m['role'] == 'user' %}{{ '<|im_start|>user\n' + content + '<|im_end|>\n<|im_start|>assistant\n' }}{% elif m['role'] == 'assistant' %}{{ content + '<|im_end|>' + '\n' }}{% endif %}{% endfor %}"""

LLAMA2 = r"""{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}{% else %}{% set rest = messages %}{% set system = false %}{% endif %}{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('user and assistant must take turns') }}{% endif %}{% if loop.index0 == 0 and system != false %}{% set content = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + m['content'] %}{% else %}{% set content = m['content'] %}{% endif %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif m['role'] == 'system' %}{{ '<<SYS>>\n' + content.strip() + '\n<</SYS>>\n\n' }}{% elif m['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""

LLAMA3 = r"""{% set rest = messages %}{% for m in rest %}{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'+ m['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""

LLAMA31 = r"""{{- bos_token }}
{%- if own_tools is defined %}
    {%- set tools = own_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "1 Jan 2024" %}
    {%- endif %}
{%- endif %}

{#- The system message goes to its own place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}

{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if inner_tools is defined or tools is not none %}
    {{- "Shell: yes\n" }}
{%- endif %}
{%- if inner_tools is defined %}
    {{- "Inner: " + inner_tools | reject('equalto', 'shell') | join(", ") + "\n\n"}}
{%- endif %}
{{- "Date: " + date_string + "\n\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {{- "Functions, to be called as JSON. " }}
    {{- 'The form is {"name": ..., "parameters": ...}.' }}
    {{- "\n\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
{%- endif %}
{{- system }}
{{- "<|eot_id|>" }}

{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set asked = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("tools need a first message of the user") }}
{%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\n\n' -}}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
    {{- asked + "<|eot_id|>"}}
{%- endif %}

{%- for m in messages %}
    {%- if not (m.role == 'ipython' or m.role == 'tool' or 'tool_calls' in m) %}
        {{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'+ m['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in m %}
        {%- if not m.tool_calls|length == 1 %}
            {{- raise_exception("one call at a time") }}
        {%- endif %}
        {%- set call = m.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
        {%- if inner_tools is defined and call.name in inner_tools %}
            {{- "<|python_tag|>" + call.name + ".call(" }}
            {%- for name, value in call.arguments | items %}
                {{- name + '="' + value|string + '"' }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- endif %}
                {%- endfor %}
            {{- ")<|eom_id|>" }}
        {%- else  %}
            {{- '{"name": "' + call.name + '", ' }}
            {{- '"parameters": ' }}
            {{- call.arguments | tojson }}
            {{- "}<|eot_id|>" }}
        {%- endif %}
    {%- elif m.role == "tool" or m.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" }}
        {%- if m.content is mapping or m.content is iterable %}
            {{- m.content | tojson }}
        {%- else %}
            {{- m.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""

MISTRAL1 = r"""{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('user and assistant must take turns') }}{% endif %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% elif m['role'] == 'assistant' %}{{ m['content'] + eos_token + ' ' }}{% else %}{{ raise_exception('a role that is not known: ' + m['role']) }}{% endif %}{% endfor %}"""

MISTRAL3 = r"""{%- if messages[0]["role"] == "system" %}
    {%- set system = messages[0]["content"] %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set rest = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set asked = rest | selectattr("role", "equalto", "user") | list %}

{#- Turns must alternate; those of tools do not count. #}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for m in rest %}
    {%- if not (m.role == "tool" or m.role == "tool_results" or (m.tool_calls is defined and m.tool_calls is not none)) %}
        {%- if (m["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("user and assistant must take turns") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for m in rest %}
    {%- if m["role"] == "user" %}
        {%- if tools is not none and (m == asked[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, value in tool.items() if key != "return" %}
                    {%- if value is string %}
                        {{- '"' + key + '": "' + value + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + value|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
            {%- endif %}
        {%- if loop.last and system is defined %}
            {{- "[INST] " + system + "\n\n" + m["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + m["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif m.tool_calls is defined and m.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for call in m.tool_calls %}
            {%- set out = call.function|tojson %}
            {{- out[:-1] }}
            {%- if not call.id is defined or call.id|length != 9 %}
                {{- raise_exception("a call's id has nine letters") }}
            {%- endif %}
            {{- ', "id": "' + call.id + '"}' }}
            {{- ", " if not loop.last else "]" + eos_token }}
        {%- endfor %}
    {%- elif m["role"] == "assistant" %}
        {{- " " + m["content"]|trim + eos_token}}
    {%- elif m["role"] == "tool_results" or m["role"] == "tool" %}
        {%- if m.content is defined and m.content.content is defined %}
            {%- set content = m.content.content %}
        {%- else %}
            {%- set content = m.content %}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}
        {{- '"call_id": "' + m.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("a role that is not known") }}
    {%- endif %}
{%- endfor %}
"""

NEMO = r"""{%- set system = messages[0]["content"] if messages and messages[0]["role"] == "system" %}
{%- set rest = messages[1:] if system is defined and system else messages %}
{{- bos_token }}
{%- for m in rest %}
    {%- if m.role == 'user' %}
        {%- if tools and loop.revindex0 == 0 %}
            {{- '[AVAILABLE_TOOLS]' + (tools|tojson) + '[/AVAILABLE_TOOLS]' }}
        {%- endif %}
        {{- '[INST]' }}
        {%- if loop.last and system %}{{- system + '\n\n' }}{%- endif %}
        {%- if m.content is string %}
            {{- m.content }}
        {%- else %}
            {%- for part in m.content | selectattr('type', 'in', ['text', 'image']) %}
                {{- part.text if part.type == 'text' else '[IMG]' }}
            {%- endfor %}
        {%- endif %}
        {{- '[/INST]' }}
    {%- elif m.tool_calls %}
        {{- '[TOOL_CALLS][' }}
        {%- for call in m.tool_calls %}
            {{- {'name': call.function.name, 'arguments': call.function.arguments, 'id': call.id[-9:]}|tojson }}
            {{- ', ' if not loop.last }}
        {%- endfor %}
        {{- ']' + eos_token }}
    {%- elif m.role == 'assistant' %}
        {{- m.content + eos_token }}
    {%- elif m.role == 'tool' %}
        {{- '[TOOL_RESULTS]{"content": ' ~ (m.content|tojson) ~ '}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception('no such role: ' ~ m.role) }}
    {%- endif %}
{%- endfor %}"""

PHI3 = r"""{% for m in messages %}{% if m['role'] == 'system' %}{{'<|system|>\n' + m['content'] + '<|end|>\n'}}{% elif m['role'] == 'user' %}{{'<|user|>\n' + m['content'] + '<|end|>\n'}}{% elif m['role'] == 'assistant' %}{{'<|assistant|>\n' + m['content'] + '<|end|>\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"""

PHI35 = r"""{% for m in messages %}{% if m['role'] == 'system' and m['content'] %}{{'<|system|>\n' + m['content'] + '<|end|>\n'}}{% elif m['role'] in ['user', 'assistant'] %}{{'<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"""

PHI4 = r"""{% for m in messages %}{% if (m['role'] == 'system') %}{{'<|im_start|>system<|im_sep|>' + m['content'] + '<|im_end|>'}}{% elif (m['role'] == 'user') %}{{'<|im_start|>user<|im_sep|>' + m['content'] + '<|im_end|>'}}{% elif (m['role'] == 'assistant') %}{{'<|im_start|>assistant<|im_sep|>' + m['content'] + '<|im_end|>'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"""

PHI4_MINI = r"""{% for m in messages %}{% if m['role'] == 'system' and 'tools' in m and m['tools'] is not none %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|tool|>' + m['tools'] + '<|/tool|>' + '<|end|>' }}{% else %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"""

GEMMA1 = r"""{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system messages here') }}{% endif %}{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('user and model must take turns') }}{% endif %}{% if (m['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = m['role'] %}{% endif %}{{ '<start_of_turn>' + role + '
' + m['content'] | trim + '<end_of_turn>
' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model
'}}{% endif %}"""

GEMMA3 = r"""{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set rest = messages[1:] -%}
{%- else -%}
    {%- set prefix = "" -%}
    {%- set rest = messages -%}
{%- endif -%}
{%- for m in rest -%}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("user and model must take turns") }}
    {%- endif -%}
    {%- set role = "model" if m['role'] == 'assistant' else m['role'] -%}
    {{ '<start_of_turn>' + role + '
' + (prefix if loop.first else "") }}
    {%- if m['content'] is string -%}
        {{ m['content'] | trim }}
    {%- elif m['content'] is iterable -%}
        {%- for item in m['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("content of no kind") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
"""

GRANITE3 = r"""{%- if messages and messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set system = 'Today is ' + date_string + '.' %}
    {%- if tools and documents %}
        {%- set system = system + ' Use tools and documents.' %}
    {%- elif tools %}
        {%- set system = system + ' Use tools.' %}
    {%- elif documents %}
        {%- set system = system + ' Use documents.' %}
    {%- endif %}
    {%- if controls and 'citations' in controls and documents %}
        {%- set system = system + '\nCite as <co>.' %}
    {%- endif %}
    {%- set rest = messages %}
{%- endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + system + '<|end_of_text|>\n' }}
{%- if tools %}
    {{- '<|start_of_role|>tools<|end_of_role|>' }}
    {{- tools | tojson(indent=4) }}
    {{- '<|end_of_text|>\n' }}
{%- endif %}
{%- for document in documents or [] %}
    {{- '<|start_of_role|>document {"id": "' + (document.id|default(loop.index))|string + '"}<|end_of_role|>\n' + document['text'] + '<|end_of_text|>\n' }}
{%- endfor %}
{%- for m in rest %}
    {{- '<|start_of_role|>' + m['role'] + '<|end_of_role|>' + (m['content'] if m['content'] is string else m['content']|map(attribute='text', default='?')|join) + '<|end_of_text|>\n' }}
    {%- if loop.last and add_generation_prompt %}
        {{- '<|start_of_role|>assistant' }}
        {%- if controls %}
            {{- ' ' + controls | tojson() }}
        {%- endif %}
        {{- '<|end_of_role|>' }}
    {%- endif %}
{%- endfor %}"""

OLMO2 = r"""{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ '<|system|>
' + m['content'] + '
' }}{% elif m['role'] == 'user' %}{{ '<|user|>
' + m['content'] + '
' }}{% elif m['role'] == 'assistant' %}{% if not loop.last %}{{ '<|assistant|>
'  + m['content'] + eos_token + '
' }}{% else %}{{ '<|assistant|>
'  + m['content'] + eos_token }}{% endif %}{% endif %}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>
' }}{% endif %}{% endfor %}"""

ZEPHYR = r"""{% for m in messages %}
{% if m['role'] == 'user' %}
{{ '<|user|>
' + m['content'] + eos_token }}
{% elif m['role'] == 'system' %}
{{ '<|system|>
' + m['content'] + eos_token }}
{% elif m['role'] == 'assistant' %}
{{ '<|assistant|>
'  + m['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

DEEPSEEK = r"""{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(first=false, tool=false, output=true, system='', seen=true) %}{%- for m in messages %}{%- if m['role'] == 'system' %}{%- if ns.seen %}{% set ns.system = ns.system + m['content'] %}{% set ns.seen = false %}{%- else %}{% set ns.system = ns.system + '\n\n' + m['content'] %}{%- endif %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system }}{%- for m in messages %}{%- if m['role'] == 'user' %}{%- set ns.tool = false -%}{{'<｜User｜>' + m['content']}}{%- endif %}{%- if m['role'] == 'assistant' and 'tool_calls' in m %}{%- set ns.tool = false -%}{%- for call in m['tool_calls'] %}{%- set args = call['function']['arguments'] %}{%- if not ns.first %}{{'<｜Assistant｜><｜calls｜>' + call['type'] + '<｜sep｜>' + call['function']['name'] + '\n' + '```json' + '\n' + (args if args is string else args|tojson) + '\n' + '```'}}{%- set ns.first = true -%}{%- else %}{{'\n' + call['function']['name']}}{%- endif %}{%- endfor %}{{'<｜end｜>'}}{%- endif %}{%- if m['role'] == 'assistant' and 'tool_calls' not in m %}{%- if ns.tool %}{{'<｜outputs end｜>' + m['content'] + '<｜end｜>'}}{%- set ns.tool = false -%}{%- else %}{% set content = m['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<｜Assistant｜>' + content + '<｜end｜>'}}{%- endif %}{%- endif %}{%- if m['role'] == 'tool' %}{%- set ns.tool = true -%}{%- if ns.output %}{{'<｜outputs｜>' + m['content']}}{%- set ns.output = false %}{%- else %}{{'\n' + m['content']}}{%- endif %}{%- endif %}{%- endfor -%}{% if ns.tool %}{{'<｜outputs end｜>'}}{% endif %}{% if add_generation_prompt and not ns.tool %}{{'<｜Assistant｜><think>\n'}}{% endif %}"""

COMMAND_R = r"""{%- macro kind(spec) %}
    {%- set names = {"string": "str", "number": "float", "integer": "int", "boolean": "bool"} %}
    {%- if names[spec.type] is defined %}
        {{- names[spec.type] }}
    {%- elif spec.type == "array" %}
        {{- "List[" + kind(spec['items']) + "]" }}
    {%- elif spec.type == "object" %}
        {{- "Dict" if spec.additionalProperties is not defined else "Dict[str, " + kind(spec.additionalProperties) + ']' }}
    {%- elif spec.type is iterable and spec.type is not string %}
        {{- "Union[" }}
        {%- for t in spec.type %}{{- kind({"type": t}) }}{{- "," if not loop.last }}{%- endfor %}
        {{- "]" }}
    {%- else %}
        {{- "Any" }}
    {%- endif %}
{%- endmacro -%}
{%- macro turn(role, text='') -%}
    {{ '<|START_OF_TURN_TOKEN|><|' ~ role|upper ~ '_TOKEN|>' ~ text ~ '<|END_OF_TURN_TOKEN|>' }}
{%- endmacro -%}
{{ bos_token }}
{%- set has_system = messages[0]['role'] == 'system' -%}
{%- set system = messages[0]['content'] if has_system else '## Task\nAnswer.' -%}
{%- set rest = messages[1:] if has_system else messages -%}
{%- set signatures -%}
    {%- for tool in tools or [] %}
        {%- set f = tool.function %}
        {{- '\n\ndef ' + f.name + '(' }}
        {%- for name, spec in f.parameters.properties|items %}
            {{- name ~ ': ' }}{% if name not in f.parameters.required %}Optional[{{ kind(spec) }}] = None{% else %}{{ kind(spec) }}{% endif %}{{ ', ' if not loop.last }}
        {%- endfor %}
        {{- ') -> ' ~ kind(f['return']) ~ ': pass' }}
    {%- endfor %}
{%- endset -%}
{{ turn('system', system|trim ~ signatures) }}
{%- for m in rest -%}
    {%- if m.role == 'user' -%}
        {{ turn('user', (m.content if m.content is string else m.content|tojson).strip()) }}
    {%- elif m.role == 'assistant' -%}
        {{ turn('chatbot', 'Action: ' ~ m.tool_calls|map(attribute='function')|list|tojson(indent=1) if m.tool_calls else m.content|trim) }}
    {%- else -%}
        {{ turn('system', '<results>\n' ~ m.content|indent(2, true) ~ '</results>') }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{%- endif -%}"""

GPT_OSS = r"""{#- Types as TypeScript has them. -#}
{%- macro type_of(spec, required=[], nullable=false) -%}
    {%- if spec.type == "array" -%}
        {%- if spec['items'] -%}
            {{- (type_of(spec['items']) ~ "[]") if spec['items'].type in ["string", "number", "integer"] else "any[]" }}
        {%- else -%}any[]{%- endif -%}
        {%- if spec.nullable %} | null{%- endif -%}
    {%- elif spec.type is defined and spec.type is iterable and spec.type is not string and spec.type is not mapping and spec.type[0] is defined -%}
        {{- spec.type | join(" | ") }}
    {%- elif spec.oneOf -%}
        {%- for one in spec.oneOf -%}
            {{- type_of(one, required) -}}
            {%- if one.description %}{{- "// " + one.description }}{%- endif -%}
            {%- if one.default is defined %}{{ "// default: " + one.default|tojson }}{%- endif -%}
            {%- if not loop.last %}{{- " | " }}{%- endif -%}
        {%- endfor -%}
    {%- elif spec.type == "string" -%}
        {{- '"' + spec.enum|join('" | "') + '"' if spec.enum else "string" }}
        {%- if nullable or spec.nullable %} | null{%- endif -%}
    {%- elif spec.type in ("number", "integer") -%}number
    {%- elif spec.type == "boolean" -%}boolean
    {%- elif spec.type == "object" and spec.properties -%}
        {{- "{\n" }}
        {%- for name, inner in spec.properties.items() -%}
            {{- name }}{{- "?" if name not in (spec.required or []) }}{{- ": " ~ type_of(inner, spec.required or []) }}
            {%- if not loop.last %}{{- ", " }}{%- endif -%}
        {%- endfor -%}
        {{- "}" }}
    {%- else -%}any
    {%- endif -%}
{%- endmacro -%}
{%- macro tool_space(name, tools) -%}
    {{- "## " + name + "\n\nnamespace " + name + " {\n\n" }}
    {%- for tool in tools %}
        {%- set tool = tool.function %}
        {{- "// " + tool.description + "\ntype " + tool.name + " = " }}
        {%- if tool.parameters and tool.parameters.properties -%}
            {{- "(_: {\n" }}
            {%- for name, spec in tool.parameters.properties.items() %}
                {%- if spec.description %}{{- "// " + spec.description + "\n" }}{%- endif %}
                {{- name + ("?" if name not in (tool.parameters.required or []) else "") + ": " }}
                {{- type_of(spec, tool.parameters.required or []) }}
                {%- if spec.default is defined %}{{- ", // default: " + spec.default|string }}{%- endif %}
                {{- ",\n" }}
            {%- endfor %}
            {{- "}) => any;\n\n" }}
        {%- else -%}
            {{- "() => any;\n\n" }}
        {%- endif -%}
    {%- endfor %}
    {{- "} // namespace " + name }}
{%- endmacro -%}
{%- macro system_text() -%}
    {{- (identity if identity is defined else "An assistant.") + "\n" }}
    {{- "Date: " + date_string + "\n\nReasoning: " + (reasoning_effort|default("medium")) + "\n\n" }}
    {{- "# Channels: analysis, final." }}
    {%- if tools -%}{{- "\nCalls go to 'commentary'." }}{%- endif -%}
{%- endmacro -%}
{{- "<|start|>system<|message|>" }}
{{- system_text() }}
{{- "<|end|>" }}
{%- if messages[0].role == "developer" or messages[0].role == "system" %}
    {%- set developer = messages[0].content %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set developer = "" %}
    {%- set rest = messages %}
{%- endif %}
{%- if developer or tools %}
    {{- "<|start|>developer<|message|>" }}
    {%- if developer %}{{- "# Instructions\n\n" + developer + "\n\n" }}{%- endif %}
    {%- if tools %}{{- "# Tools\n\n" + tool_space("functions", tools) }}{%- endif %}
    {{- "<|end|>" }}
{%- endif %}
{%- set last_call = namespace(name=none) %}
{%- for m in rest -%}
    {%- if m.role == 'assistant' -%}
        {%- if "thinking" in m and "<|channel|>" in m.thinking %}
            {{- raise_exception("a channel marker inside a thought") }}
        {%- endif %}
        {%- if "tool_calls" in m %}
            {%- set later = namespace(found=false) %}
            {%- for other in rest[loop.index:] %}
                {%- if other.role == 'assistant' and "tool_calls" not in other %}
                    {%- set later.found = true %}
                {%- endif %}
            {%- endfor %}
            {%- set call = m.tool_calls[0] %}
            {%- if call.function %}{%- set call = call.function %}{%- endif %}
            {%- if m.content and m.thinking %}
                {{- raise_exception("content and a thought in one message") }}
            {%- elif m.content and not later.found %}
                {{- "<|start|>assistant<|channel|>analysis<|message|>" + m.content + "<|end|>" }}
            {%- endif %}
            {{- "<|start|>assistant to=" }}
            {{- "functions." + call.name + "<|channel|>commentary " }}
            {{- (call.content_type if call.content_type is defined else "json") + "<|message|>" }}
            {{- call.arguments|tojson }}
            {{- "<|call|>" }}
            {%- set last_call.name = call.name %}
        {%- elif loop.last and not add_generation_prompt %}
            {%- if "thinking" in m %}
                {{- "<|start|>assistant<|channel|>analysis<|message|>" + m.thinking + "<|end|>" }}
            {%- endif %}
            {{- "<|start|>assistant<|channel|>final<|message|>" + m.content + "<|return|>" }}
        {%- else %}
            {{- "<|start|>assistant<|channel|>final<|message|>" + m.content + "<|end|>" }}
            {%- set last_call.name = none %}
        {%- endif %}
    {%- elif m.role == 'tool' -%}
        {%- if last_call.name is none %}
            {{- raise_exception("a result without a call") }}
        {%- endif %}
        {{- "<|start|>functions." + last_call.name }}
        {{- " to=assistant<|channel|>commentary<|message|>" + m.content|tojson + "<|end|>" }}
    {%- elif m.role == 'user' -%}
        {{- "<|start|>user<|message|>" + m.content + "<|end|>" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|start|>assistant
{%- endif -%}"""

MODELS = {
    "chatml": CHATML, "smollm2": SMOLLM2, "smollm3": SMOLLM3, "qwen2": QWEN2, "qwen2.5": QWEN25, "qwen3": QWEN3, "yi": YI,
    "llama2": LLAMA2, "llama3": LLAMA3, "llama3.1": LLAMA31, "mistral-v1": MISTRAL1, "mistral-v3": MISTRAL3, "nemo": NEMO,
    "phi3": PHI3, "phi3.5": PHI35, "phi4": PHI4, "phi4-mini": PHI4_MINI, "gemma": GEMMA1, "gemma3": GEMMA3,
    "granite3": GRANITE3, "olmo2": OLMO2, "zephyr": ZEPHYR, "deepseek": DEEPSEEK, "command-r": COMMAND_R, "gpt-oss": GPT_OSS,
}

DATA = {"x": [3, 1, 2], "d": {"b": 1, "a": [True, None, 2.5, "q\"'\n"], "c": {}}, "s": "  Ab\u00e9 cd\t", "n": None,
        "people": [{"name": "Zo\u00eb", "age": 7, "t": ["k"]}, {"name": "al", "age": 31}, {"name": "Bo", "age": 7}],
        "t": "a,b,,c", "big": 12345678901, "f": 0.1, "e": [], "q": "\u00df\u0130 \u01c6x o'neil <b>&"}

FEATURES = [
    # white space
    "  a\n  {% if true %}\n  b\n  {% endif %}\n  c\n",
    "a {%- if true -%} \n b \n {%- endif %} c\n\n",
    "{% for i in x %}\n{{ i }}\n{% endfor %}\nend\n",
    "  {%+ if true %}\nx\n  {%- endif +%}\ny", "{{ 1 -}}  \n 2", "a \n {{- 1 }} b", "a{# c #}\nb{#- d -#}  \n c",
    "  {# x #}\n  y {# z #} w\n", "a \n{#-#}\t\n\nb", "{% if e|reject('odd') %}lazy{% endif %}{% set g = x|map('string') %}{{ g|join }}{{ g|join }}", "{% raw %} {{ x }} {% if %} {% endraw %}z", "a  {%- raw -%}  {{ q }}  {%- endraw -%}  b",
    "x\r\ny\r{{ 1 }}\r\n", "\n\n{{ 1 }}\n\n\n", "\t {% set a = 1 %} \t\n{{ a }}", "{{ '}}' }}{{ \"%}\" }}{{ {'a': {'b': 1}}.a.b }}",
    # scopes and loops
    "{% set a = 1 %}{% for i in x %}{% set a = i %}{{ a }}{% endfor %}{{ a }}",
    "{% set ns = namespace(a=0, b='z') %}{% for i in x %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c is defined }}",
    "{% if true %}{% set a = 2 %}{% endif %}{{ a }}",
    "{% for i in x %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}",
    "{% for i in e %}x{% else %}none{% endfor %}{% for i in x if i > 9 %}x{% else %}none{% endfor %}",
    "{% for i in x if i != 1 %}{{ i }}{{ loop.last }}{% endfor %}", "{% for i in x %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
    "{% for i in x %}{% if i == 1 %}{% break %}{% endif %}{{ i }}{% endfor %}!", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in d %}{{ k }}{% endfor %}{% for c in 'h\u00e9' %}[{{ c }}]{% endfor %}", "{% for a in x %}{% for b in x %}{{ loop.depth }}{{ a * b }} {% endfor %}{% endfor %}",
    "{% for i in x %}{{ loop.cycle('o', 'e') }}{% endfor %}", "{% set a, b = [1, 2] %}{{ b }}{{ a }}", "{% set z %}in {{ x[0] }}{% endset %}{{ z }}|{{ z|length }}",
    "{% macro m(a, b='d') %}({{ a }}:{{ b }}){% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(b=3, a=4) }}{{ m() }}",
    "{% macro r(k) %}{% if k > 0 %}{{ k }}{{ r(k - 1) }}{% endif %}{% endmacro %}{{ r(5) }}", "{% generation %}g{{ 1 }}{% endgeneration %}",
    "{% for i in range(3) %}{{ i }}{% endfor %}{% for i in range(5, 0, -2) %}{{ i }}{% endfor %}{{ range(2)|list }}",
    "{% if n %}a{% elif x[5] %}b{% elif not e %}c{% else %}d{% endif %}",
    "{% with a = 1, b = x[0] %}{{ a }}{{ b }}{% set c = 5 %}{{ c }}{% endwith %}{{ a is defined }}{{ c is defined }}{% with %}{% endwith %}",
    "{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}{% generation %}{% set a = 3 %}{{ a }}{% endgeneration %}{{ a }}",
    "{% filter upper|replace('A', '-') %}a{{ s|trim }}{% set k = 1 %}{% endfilter %}{{ k is defined }}|{% set z|trim|length %}  in {{ x[0] }} {% endset %}{{ z + 1 }}",
    "{% for i in [1, 1, 2, 2, 1] %}{{ loop.changed(i) }}{{ loop.changed(i, 'k') if i == 2 }} {% endfor %}",
    "{{ d.items is defined }} {{ {'items': 1}['items'] }} {{ {'items': 1}.items is callable }} {{ {'keys': 1}.keys is string }}",
    "{% macro m(a, b=[1], c=b) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m('q') }}{{ m('q', c=2) }} {% macro l() %}{% for i in x %}{{ i }}{% if i == 1 %}{% break %}{% endif %}{% endfor %}{% endmacro %}{{ l() }}",
    "{% for i in x %}{% for k in x %}{% if k == 1 %}{% continue %}{% endif %}{{ i }}{{ k }}{% if k == 2 %}{% break %}{% endif %}{% endfor %};{% endfor %}",
    "{% for i in x %}{% macro f() %}{{ i }}{{ loop.index }}{% endmacro %}{{ f() }}{% endfor %}{% macro o(a) %}{% macro f() %}{{ a }}{% endmacro %}{{ f() }}{% endmacro %}{{ o(5) }}{% with a = 3 %}{% macro g() %}{{ a }}{% endmacro %}{{ g() }}{% endwith %}{{ g is defined }}",
    # expressions
    "{{ 1 + 2 * 3 - 4 // 3 }} {{ 7 % 4 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 7 / 2 }} {{ 1 - -1 }} {{ 2.5 * 2 }} {{ 1e3 }} {{ 1_000 }}",
    "{{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ true == 1 }} {{ 'a' != 'b' }}",
    "{{ 'x' ~ 1 ~ none ~ true ~ 1.0 }} {{ 'a' 'b' \"c\" }} {{ 'ab' * 3 }} {{ [1] + [2] }} {{ [0] * 3 }}",
    "{{ 1 if true else 2 }} {{ 1 if false }}| {{ 'a' if n else 'b' if e else 'c' }}", "{{ not n and x or 5 }} {{ not not n }} {{ n or 'dflt' }} {{ 0 and y.z }}",
    "{{ 1 in x }} {{ 9 not in x }} {{ 'b' in d }} {{ 'A' in s }} {{ not 1 in x }} {{ 'q' in undef }}",
    "{{ x[0] }}{{ x[-1] }}{{ x[1:] }}{{ x[:-1] }}{{ x[::-1] }}{{ x[::2] }}{{ x[-2:9] }}{{ t[1:4] }}{{ t[::-1] }}{{ s[-3:] }}{{ t[0] }}{{ x[7] }}",
    "{{ d.a[3] }} {{ d['b'] }} {{ d.c }} {{ d.zz }} {{ d.get('b') }} {{ d.get('zz', 9) }} {{ d.get('zz') }} {{ d.keys()|list }} {{ d.values()|list }}",
    "{{ d }} {{ x }} {{ (1, 'a') }} {{ (1,) }} {{ () }} {{ {'k': [none]} }} {{ 'it''s' }} {{ [\"a'b\", 'c\"d', \"\\n\\t\\x07\u00e9\u200b\"] }}",
    "{{ 0.1 }} {{ 1.0 }} {{ 1e16 }} {{ 1.5e-7 }} {{ 123456.789 }} {{ 0.0001 }} {{ 1e15 }} {{ f + 0.2 }} {{ 1/3 }} {{ big * 1000 }} {{ -0.0 }}",
    "{{ 'a\\nb\\u00e9\\x41\\'\\q' }}", "{{ undef }}|{{ undef is defined }}|{{ undef|default('q') }}|{{ n|default('q') }}|{{ n|default('q', true) }}|{{ undef == undef2 }}",
    "{{ (1, 2)|length }} {{ -1|abs }} {{ (x|length) + 1 }} {{ x|length == 3 }} {{ s|trim|upper|lower|length }}", "{{ 1 is defined and 2 is number }}",
    "{{ range(4) }} {{ range(9, 1, -3) }} {{ range(9)[2:7:2] }} {{ range(3) == [0, 1, 2] }} {{ range(3) == range(3) }} {{ [range(2)] }} {{ range(0)|length }}",
    "{{ 0.0 % -7 }} {{ 7.5 % -2 }} {{ -7.5 // 2 }} {{ 7.5 // -2.5 }} {{ -0.0 // 3 }} {{ 1e17 // 3.0 }} {{ 5.5 % 0.25 }}",
    "{{ 'abc'.replace('', '-') }} {{ 'h\u00e9'|replace('', '.', 2) }} [{{ ' a b  c \\n'.split(none, 1) }}] [{{ ' a '.split(none, 0) }}] {{ x.count(1) }} {{ x.index(2) }} {{ (1, 1).count(1) }}",
    "{{ 2.5 is odd }} {{ 3.0 is odd }} {{ 2.5 is even }} {{ undef is callable }} {{ d.items is callable }} {{ ' 12 '|int }} {{ '1e3'|int }} {{ '0x1f'|int(7) }} {{ 'inf'|int(8) }} {{ '-0.28571428571428570'|int(4) }} {{ ' 2.5 '|float }} {{ '0x1f'|float(2) }}",
    "{% if false %}{{ x|no_such }}{{ x is no_such }}{{ s|upper.split() }}{% endif %}{{ (1, 'a') in {(1, 'a'): 2} }} {{ x[1:]|list }} {{ {}['a']|default('z') }}",
    # tests
    "{{ n is none }} {{ x is iterable }} {{ x is sequence }} {{ d is mapping }} {{ s is string }} {{ 1 is number }} {{ 1.0 is float }} {{ 1 is integer }} {{ true is boolean }} {{ true is integer }} {{ 1 is true }} {{ true is true }} {{ false is false }}",
    "{{ 4 is divisibleby 2 }} {{ 4 is divisibleby(3) }} {{ 3 is odd }} {{ 3 is even }} {{ 'a' is in 'abc' }} {{ 3 is eq 3 }} {{ 3 is gt(2) }} {{ 'ab' is lower }} {{ 'AB' is upper }} {{ 5 is not none }} {{ x is not string }} {{ none is sameas none }}",
    # filters
    "[{{ s|trim }}] [{{ 'xxhixx'|trim('x') }}] {{ q|upper }} {{ 'STRASSE \u0130'|lower }} {{ q|title }} {{ 'hELLO wORLD'|capitalize }} {{ \"they're bill's-x (y\"|title }}",
    "{{ d|tojson }} {{ x|tojson }} {{ q|tojson }} {{ 'a/b\\u2028\\x7f\\x01'|tojson }} {{ none|tojson }} {{ 1.0|tojson }} {{ true|tojson }}",
    "{{ d|tojson(indent=2) }}\n{{ e|tojson(indent=2) }} {{ {}|tojson(indent=4) }} {{ d|tojson(sort_keys=true) }} {{ d|tojson(separators=(',', ':')) }}",
    "{{ x|join(', ') }} {{ x|join }} {{ people|join('/', attribute='name') }} {{ people|map(attribute='age')|join(' ') }} {{ x|map('string')|join('+') }} {{ people|map(attribute='zz', default='-')|list }}",
    "{{ x|first }} {{ x|last }} {{ 'abc'|first }} {{ e|first }} {{ x|reverse|list }} {{ 'abc'|reverse }} {{ x|sort }} {{ x|sort(reverse=true) }} {{ ['b', 'A', 'c']|sort }} {{ people|sort(attribute='name')|map(attribute='name')|list }}",
    "{{ people|selectattr('age', 'equalto', 7)|map(attribute='name')|list }} {{ people|rejectattr('t')|list|length }} {{ x|select('odd')|list }} {{ x|reject('gt', 1)|list }} {{ people|selectattr('t', 'defined')|list|length }} {{ [0, 1, '']|select|list }}",
    "{{ '12'|int }} {{ '1.7'|int }} {{ 'zz'|int }} {{ 'zz'|int(5) }} {{ 3.9|int }} {{ '2.5'|float }} {{ -3|abs }} {{ x|sum }} {{ people|sum(attribute='age') }} {{ x|min }} {{ x|max }} {{ [1, 1, 'a', 'A']|unique|list }}",
    "{{ d|items|list }} {{ undef|items|list }} {{ d|dictsort|map('first')|join }} {{ {'b': 1, 'A': 2}|dictsort }} {{ d|length }} {{ 'h\u00e9'|length }} {{ 5|string + 'x' }} {{ 'a-b'|replace('-', '+') }} {{ 'aaa'|replace('a', 'b', 2) }}",
    "{{ q|tojson(ensure_ascii=true) }} {{ '\\U0001F600\\x7f'|tojson(true) }} {{ 'ff'|int(0, 16) }} {{ 'zz'|int(base=36) }} {{ [['b', 1], ['a', 2]]|sort(attribute=0) }} {{ [['b', 1]]|join('', attribute=0) }} {{ (-1) ** 3 }} {{ (-1) ** 1000000000000 }}",
    "{{ 'a\\nb\\n\\nc'|indent(2) }}|{{ 'a\\nb'|indent(width=1, first=true) }}|{{ x|list }} {{ 'ab'|list }} {{ d|list }} {{ x|count }}",
    # methods
    "[{{ s.strip() }}] [{{ s.lstrip() }}] [{{ s.rstrip() }}] {{ 'xyhiyx'.strip('xy') }} {{ t.split(',') }} {{ ' a  b '.split() }} {{ t.split(',', 1) }} {{ 'a b  c'.split(none, 1) }} {{ t.rsplit(',', 1) }} {{ 'a\\nb\\r\\nc'.splitlines() }}",
    "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abc'.upper() }} {{ 'ABC'.lower() }} {{ \"it's a o'neil x1y\".title() }} {{ 'hELLO'.capitalize() }} {{ 'abab'.replace('a', 'x') }} {{ 'abab'.count('ab') }} {{ 'abcb'.find('b') }} {{ 'abcb'.rfind('b') }} {{ 'abc'.find('z') }}",
    "{{ ','.join(['a', 'b']) }} {{ '12'.isdigit() }} {{ ' '.isspace() }} {{ 'aB'.isalpha() }} {{ 'AB1'.isupper() }} {{ '12'.islower() }} {{ 'preabc'.removeprefix('pre') }} {{ 'abcsuf'.removesuffix('suf') }}",
]

REFUSED = [
    ("{{ undef|int }}", "undefined"), ("{% filter length %}a{% endfilter %}", "filter block"), ("{{ [range(3)]|tojson }}", "a range"), ("{{ range(3) + [1] }}", "a range"),
    ("{{ undef|dictsort }}", "dictsort"), ("{{ x|select('odd', 1)|list }}", "takes nothing"), ("{{ d.get([1]) }}", "as a key"), ("{{ {x: 1} }}", "as a key"), ("{{ x in d }}", "as a key"),
    ("{{ 1|indent }}", "indent of an int"), ("{{ 1 is defined is none }}", "end of a test"), ("{{ 1 is defined if not x }}", "unexpected"), ("{{ true[1:] }}", "a slice of a bool"),
    ("{{ x.index(9) }}", "index"), ("{{ '99999999999999999999'|int }}", "64 bits"), ("{{ people|unique|list }}", "as a key"), ("{{ s|upper.split() }}", "upper.split"),
    ("{{ x|join(foo=1) }}", "foo"), ("{{ s|trim('a', 'b') }}", "2 arguments"), ("{% macro m(a) %}{% endmacro %}{{ m(b=1) }}", "\"b\""),
    ("{% call m() %}{% endcall %}", "call"), ("{{ people|sort(attribute='age,name')|list }}", "age,name"), ("{% filter nope %}{% endfilter %}", "nope"),
    ("{{ x|tojson(indent=65) }}", "indent of 65"), ("{{ 'a'|int(0, 99) }}", "base 99"), ("{% with a %}{% endwith %}", "expected ="),
    ("{{ x|frobnicate }}", "frobnicate"), ("{{ x is frob }}", "frob"), ("a\n{% include 'x' %}", "include"),
    ("{{ lipsum() }}", "lipsum"), ("{{ 'a'.format(1) }}", "format"), ("{{ x.append(1) }}", "append"), ("{{ ''.__class__() }}", "__class__"),
    ("{{ undef.x }}", "undefined"), ("{{ undef + 1 }}", "undefined"), ("{{ 1 + 'a' }}", "a string"), ("{{ 1 // 0 }}", "zero"),
    ("{% for i in range(10**9) %}x{% endfor %}", "steps"), ("{% for i in 5 %}{% endfor %}", "iterable"), ("{{ raise_exception('no ' ~ 1) }}", "no 1"),
    ("{% if x %}", "endif"), ("{% endfor %}", "endfor"), ("{{ (1 }}", "unexpected"), ("{{ 'abc }}", "without end"), ("{{ 1 2 }}", "unexpected"),
    ("{% set s = 'x' * 1000000 %}{% for i in range(100) %}{% set s = s ~ s %}{{ s }}{% endfor %}", "bytes"),
    ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "deep"), ("{{ 9223372036854775807 + 1 }}", "integer"), ("{{ 2 ** 64 }}", "64 bits"),
    ("{% for a in x recursive %}{% endfor %}", "recursive"), ("{{ '%s' % 1 }}", "format"), ("{{ x(*y) }}", "arguments"), ("{% set x.y = 1 %}", "namespace"),
]
