# A queue with a policy, tags and dead letters, and a FIFO queue; see ../test_terraform.py

terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "endpoint" {
  type = string
}

variable "prefix" {
  type = string
}

variable "dead_letters" {
  type        = string
  description = "ARN of a queue that is there"
}

variable "visibility" {
  type = number
}

provider "aws" {
  region                      = "us-east-1"
  access_key                  = "conformance"
  secret_key                  = "conformance"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true

  endpoints {
    sqs = var.endpoint
  }
}

resource "aws_sqs_queue" "orders" {
  name                       = "${var.prefix}-orders"
  visibility_timeout_seconds = var.visibility
  redrive_policy             = jsonencode({ deadLetterTargetArn = var.dead_letters, maxReceiveCount = 4 })
  tags                       = { team = "a", "shadowq:shadow-factor" = "1" }

  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Sid = "s", Effect = "Allow", Principal = "*", Action = "sqs:SendMessage", Resource = "*" }]
  })
}

resource "aws_sqs_queue" "ordered" {
  name                        = "${var.prefix}.fifo"
  fifo_queue                  = true
  content_based_deduplication = true
}

output "url" {
  value = aws_sqs_queue.orders.url
}
